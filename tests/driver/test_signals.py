"""Signals of a command, where nobody reads what it says any more."""

import subprocess
import sys

WITHOUT_A_READER = """
import os, signal
from sweep.driver.signals import Signals
signals = Signals().install()
signals.be_patient()
read, write = os.pipe()
os.close(read)
os.dup2(write, 2)
os.kill(os.getpid(), signal.SIGTERM)
ends = signals._deadline is not None and signals._deadline.is_alive()
os._exit(10 * signals.asked() + ends)
"""


def test_a_signal_counts_where_nobody_reads_the_messages() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_A_READER], check=False, timeout=60)
    assert result.returncode == 11, "asked to end, and with an end to its patience"
