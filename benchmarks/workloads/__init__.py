"""The workloads, by name, in the order in which they run."""

from workloads import continuous, others, w1, w2, w3, w4, w6, w7, w8, w10
from workloads.workload import Workload

WORKLOADS: dict[str, Workload] = {
    "w1": w1.W1,
    "w1_475": w1.W1_475,
    "w2": w2.W2,
    "pendulum": continuous.PENDULUM,
    "half_cheetah": continuous.HALF_CHEETAH,
    "w3_32": w3.W3_32,
    "w3_128": w3.W3_128,
    "w4": w4.W4,
    "a2c": others.A2C,
    "reinforce": others.REINFORCE,
    "c51": others.C51,
    "qr_dqn": others.QR_DQN,
    "w6_8": w6.W6_8,
    "w6_64": w6.W6_64,
    "w7_add": w7.ADD,
    "w7_sample": w7.SAMPLE,
    "w7_prioritized": w7.PRIORITIZED,
    "w7_update": w7.UPDATE,
    "w8_long": w8.W8_LONG,
    "w8_wide": w8.W8_WIDE,
    "w10": w10.W10,
}
