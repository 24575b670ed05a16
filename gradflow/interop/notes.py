"""What the note of an imported layer says."""


def joined_notes(*notes: str) -> str:
    """Returns the notes that are not empty as one text."""
    return "; ".join(filter(None, notes))
