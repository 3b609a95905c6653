"""The module that nnU-Net finds in the folder named by `nnUNet_extTrainer`."""

from ima.nnunet.trainers import *  # noqa: F403
