"""Attacks: pure functions that leave no trace in the model."""

from ima.attacks.bpgd import bpgd
from ima.attacks.ddn import Nearest, ddn
from ima.attacks.ifgsm import ifgsm
from ima.attacks.pgd import pgd
from ima.attacks.walk import Attacked

__all__ = ["Attacked", "Nearest", "bpgd", "ddn", "ifgsm", "pgd"]
