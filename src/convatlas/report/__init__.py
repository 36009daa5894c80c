"""What became of a run, as one page that opens anywhere."""

from .page import write_report

__all__ = ["write_report"]
