"""Lightning callbacks: one file per measure, wiring only; the maths lies in the rooms of ``prs_lightning``.

trainer = Trainer(callbacks=[Scores(), Regions(), CosineSimilarity(), Sparsity(), Robustness(epsilon=8/255, test=...)])
"""

from prs_lightning.callbacks.adversarial import Adversarial
from prs_lightning.callbacks.collapse import Collapse
from prs_lightning.callbacks.cosine_similarity import CosineSimilarity
from prs_lightning.callbacks.high_prs import HighPRS
from prs_lightning.callbacks.label_smoothing import LabelSmoothing
from prs_lightning.callbacks.local_complexity import LocalComplexity
from prs_lightning.callbacks.logit_penalty import LogitPenalty
from prs_lightning.callbacks.logits import Logits
from prs_lightning.callbacks.low_prs import LowPRS
from prs_lightning.callbacks.published import Published
from prs_lightning.callbacks.records import Records
from prs_lightning.callbacks.regions import Regions
from prs_lightning.callbacks.robustness import Robustness
from prs_lightning.callbacks.scores import Scores
from prs_lightning.callbacks.sparsity import Sparsity
from prs_lightning.callbacks.weight_decay import WeightDecay
from prs_lightning.callbacks.weight_norm import WeightNorm
from prs_lightning.callbacks.weight_norms import WeightNorms
from prs_lightning.callbacks.width import Width

__all__ = [
    "Adversarial",
    "Collapse",
    "CosineSimilarity",
    "HighPRS",
    "LabelSmoothing",
    "LocalComplexity",
    "LogitPenalty",
    "Logits",
    "LowPRS",
    "Published",
    "Records",
    "Regions",
    "Robustness",
    "Scores",
    "Sparsity",
    "WeightDecay",
    "WeightNorm",
    "WeightNorms",
    "Width",
]
