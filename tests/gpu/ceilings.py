"""Stage: what this card can do at best, which the other stages' numbers are parts of."""

from gpu import card
from gpu.task import task_of_this_process


def main() -> None:
    task = task_of_this_process()
    side, tokens, gib = (512, 256, 0.01) if task.rehearsal else (card.SIDE, 32760, 2.0)
    task.attempt("bf16 matrix product", lambda: {"tflop_s": card.product_rate(side) / 1e12})
    task.attempt(f"attention over {tokens} tokens", lambda: {"tflop_s": card.attention_rate(tokens) / 1e12})
    task.attempt("copies", lambda: dict(card.copy_rates(gib)))


if __name__ == "__main__":
    main()
