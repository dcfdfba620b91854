"""Resilient multi-task model fusion over wireless links: the library behind the book.

Nothing is imported here, so that the wireless modules start without torch.
"""

__version__ = "0.1.0"
