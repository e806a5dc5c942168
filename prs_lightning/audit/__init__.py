"""The audit that settles it: is this network robust, or can the attack not see?"""

import sys

from prs_lightning.signals import stand

if sys.argv[0] == "-m":  # python -m prs_lightning.audit, before the imports below, which take their time
    stand()

from prs_lightning.audit.checks import Audit, Check, audit
from prs_lightning.audit.findings import Findings
from prs_lightning.audit.verdict import RULE, WORDS, Verdict, judge

__all__ = ["RULE", "WORDS", "Audit", "Check", "Findings", "Verdict", "audit", "judge"]
