"""Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1) on one flat tensor.

The numbers are those of ``torch.optim.Adam`` with ``fused=True``, bit for bit. But the first optimiser of
``torch.optim`` that a process makes imports torch's compiler: two seconds of work in every process that trains, for
nothing.
"""

import torch
from torch import nn

BETAS, EPS = (0.9, 0.999), 1e-8


class Adam:
    """The optimiser of one parameter.

    Args:
        parameter: changed by each step; its gradient exists already.
        lr: the step size.

    Attributes:
        moments: ``step`` (number of steps taken), ``exp_avg`` and ``exp_avg_sq``, on the parameter's device. The names
            are those of ``torch.optim``'s state.
    """

    def __init__(self, parameter: nn.Parameter, lr: float) -> None:
        self.parameter, self.lr = parameter, lr
        self.moments = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter.data),
            "exp_avg_sq": torch.zeros_like(parameter.data),
        }

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameter by its gradient."""
        step, average, squares = self.moments.values()
        assert self.parameter.grad is not None
        step += 1
        torch._fused_adam_(
            [self.parameter],
            [self.parameter.grad],
            [average],
            [squares],
            [],
            [step],
            lr=self.lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )
