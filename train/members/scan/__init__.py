"""SCAN: unsupervised cell classes (Van Gansbeke et al. 2020), written from the paper."""
