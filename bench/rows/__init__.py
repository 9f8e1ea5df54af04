"""Families of rows, one a file: `IDS`, the rows' ids, and `async measure(stage, rounds) -> list[Row]`."""
