"""placeholder"""

from hydra.experimental.callback import Callback


class SweepReport(Callback):
    """placeholder"""
