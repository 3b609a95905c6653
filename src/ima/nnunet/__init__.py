"""nnU-Net v2: trainers, slices, data, and trained folders; everything that knows nnU-Net."""
