"""The scorecard: hostile and honest cases against a running gateway, and against peers that can answer them.

`make scorecard [SUITES=dir:dir]` starts `pangate run` with this folder's configuration before a backend that records,
drives every case of every file it is given, and leaves `var/reports/scorecard.json`.
"""
