"""Submissions of rows by others: an archive, what it must hold, and deriving all of it again."""
