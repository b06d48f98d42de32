"""PPO by Stable-Baselines3, which learns to balance a pole.

thalweg race examples/stable_baselines.py:main --rules sgd,adam --trials 4 --finalists 1
"""

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

TIMESTEPS, ROUNDS = 2_048, 5


# was: def main():
def main(run):
    train, validation = make_vec_env("CartPole-v1", 4, seed=0), make_vec_env("CartPole-v1", 1, seed=1)
    # was: agent = PPO("MlpPolicy", train, n_steps=128, batch_size=128, n_epochs=4, seed=0, device="cpu")
    agent = PPO("MlpPolicy", train, n_steps=128, batch_size=128, n_epochs=4, seed=run.seed, device="cpu")
    # was: # the policy's optimizer is torch's Adam
    agent.policy.optimizer = run.optimizer(agent.policy, lr=agent.learning_rate)
    # was: for _ in range(ROUNDS):
    for _ in run.steps(ROUNDS):
        agent.learn(TIMESTEPS, reset_num_timesteps=False)
        # was: print(evaluate_policy(agent, validation, n_eval_episodes=10)[0])
        run.report(reward=evaluate_policy(agent, validation, n_eval_episodes=10)[0])
