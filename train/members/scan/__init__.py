"""SCAN: unsupervised cell classes (Van Gansbeke et al. 2020), implemented from the paper."""
