"""Sweeps: many runs from one command, each in a process of its own, to be stopped and taken up at any moment.

    ranges     ``seed=0..4`` beside Hydra's own ``range()`` and choices
    naming     a run's directory, from its config
    plan       what each job of a sweep needs: to run, to go on, or nothing
    processes  a job as a process: its command, its log, its end
    gpus       which job may use which GPU
    board      what the terminal shows
    launcher   the sweeper, and the launcher that runs jobs on this machine
    engines    the launcher that hands jobs to Slurm or Ray
    plugins    makes these known to Hydra
    status     what ``python -m prs_lightning.runs status`` and ``sync`` do

Nothing in here imports torch: the process of the sweep stays small and starts at once.
"""
