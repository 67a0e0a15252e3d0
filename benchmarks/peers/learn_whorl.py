"""whorl, as `whorl bench` measures it: `whorl.train` with run folder and log as shipped."""

from report import outcome, serve

from whorl.apps.bench import WORKS, measure


def run(work, update="auto", seconds=1.0, seed=0):
    speed = measure(WORKS[work], update, seconds, seed)
    return outcome(speed.steps_per_second, speed.share, speed.final_return) | {"update": speed.update}


if __name__ == "__main__":
    serve(run)
