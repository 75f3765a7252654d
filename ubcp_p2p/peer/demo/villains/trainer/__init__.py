"""Trainers that do not work, each a program in place of ubcp_p2p.training.worker."""
