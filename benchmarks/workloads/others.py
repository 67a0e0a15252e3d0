"""Other agents with their CartPole-v1 presets: one body of updates beside another."""

from workloads.workload import Goal, Workload, whorl

TWICE = [Goal("whorl auto", "whorl eager", 2.0)]
A2C = Workload("A2C, CartPole-v1, 8 x 5", "steps/s", whorl("a2c", "auto", "eager"), TWICE)
REINFORCE = Workload("REINFORCE, CartPole-v1, 8 x 250", "steps/s", whorl("reinforce", "auto", "eager"), TWICE)
C51 = Workload("C51, CartPole-v1, 128 rows every 8 steps", "steps/s", whorl("c51", "auto", "eager"), TWICE)
QR_DQN = Workload("QR-DQN, CartPole-v1, 128 rows every 8 steps", "steps/s", whorl("qr_dqn", "auto", "eager"), TWICE)
