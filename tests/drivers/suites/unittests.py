"""Runs a driver's own unit tests and prints a line for each: `ok NAME`, `skipped NAME` or
`not ok NAME: why`. First argument: the folder of the sources; the others: names of test modules."""

import faulthandler
import os
import signal
import sys
import unittest

# A test that takes longer hangs.
SECONDS = 30


class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.said = {}

    def startTest(self, test):
        super().startTest(test)
        signal.alarm(SECONDS)

    def stopTest(self, test):
        signal.alarm(0)
        super().stopTest(test)
        self.say(test, "ok")

    def say(self, test, outcome, why=""):
        if self.said.setdefault(test.id(), outcome) is outcome:
            line = f"{outcome} {test.id()}: {why}" if why else f"{outcome} {test.id()}"
            print(line, file=OUT, flush=True)

    def addError(self, test, err):
        self.failed(test, err)

    def addFailure(self, test, err):
        self.failed(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.failed(test, err)

    def addSkip(self, test, reason):
        self.say(test, "skipped", reason.splitlines()[0])

    def failed(self, test, err):
        why = " ".join(f"{err[0].__name__} {err[1]}".split())
        self.said.pop(test.id(), None)
        self.say(test, "not ok", why[:300])


def hangs(_signal, _frame):
    raise TimeoutError(f"it takes more than {SECONDS} s")


# What the tests print themselves goes elsewhere.
OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
faulthandler.enable()
signal.signal(signal.SIGALRM, hangs)
os.chdir(sys.argv[1])
sys.path.insert(0, sys.argv[1])
suite = unittest.TestSuite(
    unittest.defaultTestLoader.loadTestsFromName(name) for name in sys.argv[2:]
)
suite.run(Result())
