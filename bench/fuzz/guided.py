"""A parser by atheris, which sees what its inputs reach: `-m bench.fuzz.guided TARGET SECONDS FINDINGS CORPUS SEED`.

A process of its own: libFuzzer ends the one it runs in. Atheris has wheels for few systems only; where it is missing,
the parsers are fuzzed by hypothesis alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway.pure"]):
    from bench.fuzz.targets import finding_name, targets

_LONGEST = 8192


def main() -> None:
    """Keep the first input for each thing that goes wrong; go on until the time is over."""
    name, seconds, findings, corpus, seed = sys.argv[1:]
    target, known = targets()[name], set[str]()
    for number, known_good in enumerate(target.seeds):
        (Path(corpus) / str(number)).write_bytes(known_good)

    def one(data: bytes) -> None:
        found = target.finding(data)
        if found and found not in known:
            known.add(found)
            (Path(findings) / finding_name(name, data)).write_bytes(data)

    options = [f"-max_total_time={seconds}", f"-max_len={_LONGEST}", "-print_final_stats=1", f"-seed={seed}"]
    atheris.Setup([sys.argv[0], *options, corpus], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
