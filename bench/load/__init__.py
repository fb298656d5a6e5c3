"""Steady load with an exact account of it: what was sent, what was lost, why and when.

A client here never tries again, so every failure shows; a connection that is reset is a loss even when it
had been kept alive. It sends to loopback addresses only, for a bounded time and number of requests.

    with Load("http://127.0.0.1:8080", host="sample.localhost", shapes={"busy": 4, "idle": 20}) as load:
        ...
        report = load.stop()
"""

from bench.load.process import Load
from bench.load.report import Latencies, Loss, Progress, Report, Served, ShapeReport
from bench.load.settings import SHAPES, NotLoopback, Settings
from bench.load.steady import Steady, steady_load

__all__ = [
    "SHAPES",
    "Latencies",
    "Load",
    "Loss",
    "NotLoopback",
    "Progress",
    "Report",
    "Served",
    "Settings",
    "ShapeReport",
    "Steady",
    "steady_load",
]
