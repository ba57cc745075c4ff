"""Measure what this host makes of n2n: protocol, UDP sockets, TAP devices, and the complete path.

>>> from n2n.bench import Options, run
>>> results = run(Options(components=("udp",), iterations=100, packet_sizes=(64, 1400)))
>>> [(row.size, row.variant, row.lost) for row in results.rows]
[(64, 'one at a time', 0), (64, '64 at once', 0), (1400, 'one at a time', 0), (1400, '64 at once', 0)]
>>> results.rows[0].latency.median > 0, results.left_out
(True, [])

Times are nanoseconds of a packet there and back. :mod:`n2n.bench.stats` says what a percentile is;
:meth:`Results.write_csv` and :meth:`Results.as_json` write what :func:`run` found, :func:`compare` and :func:`read_csv`
set it against an earlier run. :func:`taptest` is round trips through a TAP device alone.
"""

from n2n.bench.measure import Report
from n2n.bench.options import COMPONENTS, Options
from n2n.bench.results import LeftOut, Measurement, Ratio, Results, compare, read_csv
from n2n.bench.runner import run
from n2n.bench.stats import Summary, jitter, percentile, summarize
from n2n.bench.tapdev import taptest

__all__ = [
    "COMPONENTS",
    "LeftOut",
    "Measurement",
    "Options",
    "Ratio",
    "Report",
    "Results",
    "Summary",
    "compare",
    "jitter",
    "percentile",
    "read_csv",
    "run",
    "summarize",
    "taptest",
]
