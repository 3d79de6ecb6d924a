"""What the texts of real pages are like, for a person to judge."""
