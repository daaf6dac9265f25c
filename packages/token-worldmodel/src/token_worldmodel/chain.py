"""How the tokens of a step are predicted where a step is one position of the transformer.

Shape legend: as in `model`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .config import WorldModelConfig
from .dropout import dropout


class ChainLink(nn.Module):
    """Adds one token of the coming step to what is known of it, so that the next finer one can be predicted.

    The chain begins with the state before the step, from which L0 is predicted, and has a link for each level
    but the finest. It stands for the depth transformer of RQ-Transformer (Lee et al., 2022,
    https://arxiv.org/abs/2203.01941): with a few levels there is little to attend to, and a feed-forward
    branch per level costs less than a pass of the whole transformer per token.
    """

    def __init__(self, config: WorldModelConfig, codes: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        # Apart from the transformer's own tables: there a token is the past, here a condition.
        self.embedding = nn.Embedding(codes, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.expand = nn.Linear(config.dim, config.ffn_dim)
        self.contract = nn.Linear(config.ffn_dim, config.dim)
        self.output_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, tokens: Tensor, read: Tensor | None) -> Tensor:
        """What is known (..., D) with the link's token, int64 (...), and what its codes say (..., D).

        ``output_norm`` of it is what the next level is predicted from.
        """
        x = x + self.embedding(tokens)
        if read is not None:
            x = x + read
        # The cast: as in `TransformerBlock`.
        normed = self.norm(x).to(self.expand.weight.dtype)
        return x + dropout(self.contract(F.gelu(self.expand(normed))), self.dropout, self.training)
