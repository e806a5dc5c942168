"""Run directories on the command line.

python -m prs_lightning.runs status FOLDER    what is done, running, failed and left, with reasons
python -m prs_lightning.runs sync FOLDER      upload the finished runs that W&B kept offline
"""

import sys

from prs_lightning.runs.status import main

sys.exit(main())
