from tests.faults.frame import End, Fault

FAULTS = [
    Fault("nothing", End.GOES_ON),
    Fault("nothing, and only looked at", End.TOLD, "1 finished.* 1 interrupted", command=("status",)),
    Fault("nothing, analysed", End.TOLD, "2 runs", command=("analyze",)),
    Fault(
        "a run directory of another config", End.REFUSED, "another config", command=("train", "epochs=4", "run_dir=CUT")
    ),
]
