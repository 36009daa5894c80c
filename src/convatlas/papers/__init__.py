"""What the papers print, and the audit that holds our networks against it."""

from .audit import Finding, audit
from .conventions import CONVENTIONS, Convention
from .describe import Description, describe

__all__ = ["CONVENTIONS", "Convention", "Description", "Finding", "audit", "describe"]
