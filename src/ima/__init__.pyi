"""The public names and their homes: what type checkers read, and `import ima` too."""

from ima.attacks import Attacked as Attacked
from ima.attacks import Nearest as Nearest
from ima.attacks import bpgd as bpgd
from ima.attacks import ddn as ddn
from ima.attacks import ifgsm as ifgsm
from ima.attacks import pgd as pgd
from ima.attacks.walk import walk as walk
from ima.budget import Budget as Budget
from ima.budget import OutOfTime as OutOfTime
from ima.data.indexed import Indexed as Indexed
from ima.evaluation.checks import run_checks as run_checks
from ima.evaluation.checks_results import Checks as Checks
from ima.evaluation.distances import Distances as Distances
from ima.evaluation.evaluate import evaluate as evaluate
from ima.evaluation.minimal import minimal as minimal
from ima.evaluation.results import Results as Results
from ima.evaluation.stated import Stated as Stated
from ima.margins import Margins as Margins
from ima.methods import ATES as ATES
from ima.methods import DAT as DAT
from ima.methods import FAT as FAT
from ima.methods import GAIRAT as GAIRAT
from ima.methods import IAAT as IAAT
from ima.methods import IMA as IMA
from ima.methods import MART as MART
from ima.methods import MMA as MMA
from ima.methods import SAT as SAT
from ima.methods import TRADES as TRADES
from ima.methods import CurriculumAT as CurriculumAT
from ima.methods import CustomizedAT as CustomizedAT
from ima.methods import Method as Method
from ima.methods import Noisy as Noisy
from ima.methods import Standard as Standard
from ima.methods import Step as Step
from ima.norms import L2 as L2
from ima.norms import LINF as LINF
from ima.norms import Norm as Norm
from ima.report.html import write_page as write_page
from ima.tasks import Classification as Classification
from ima.tasks import MultiLabel as MultiLabel
from ima.tasks import Segmentation as Segmentation
from ima.tasks import Task as Task
from ima.training.harden import Hardened as Hardened
from ima.training.harden import harden as harden

__version__: str
