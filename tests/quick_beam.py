"""Beam builds the graph of a small job in half the time: what it finds out again and again about the same DoFn or the same command line is
kept. A test run has a thousand such jobs. Nothing of what it finds out, or does, is another."""

from __future__ import annotations

import copy
from argparse import Namespace
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import userstate


def remember() -> None:
    """Do so for the rest of this process."""
    specs_of: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
    parsed: dict[tuple[type, tuple[str, ...]], Namespace] = {}
    get_dofn_specs, initialize = userstate.get_dofn_specs, PipelineOptions.__init__

    def remembered_specs(dofn: Any) -> Any:
        if dofn not in specs_of:
            specs_of[dofn] = get_dofn_specs(dofn)
        return specs_of[dofn]

    def initialize_quickly(self: PipelineOptions, flags: Any = None, **options: Any) -> None:
        if flags is None or isinstance(flags, str):
            initialize(self, flags, **options)
            return
        key = (type(self), tuple(flags))
        if key not in parsed:
            initialize(self, flags, **options)
            parsed[key] = copy.deepcopy(self._visible_options)
            return
        self._flags, self._visible_options, self._all_options = flags, copy.deepcopy(parsed[key]), options
        for name in self._visible_option_list():
            self._all_options.setdefault(name, getattr(self._visible_options, name))

    userstate.get_dofn_specs = remembered_specs
    PipelineOptions.__init__ = initialize_quickly
