#!/usr/bin/env python3
"""Times PyTorch's fused attention backends at attention_bench's rows. Needs torch and a card."""

import math
import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ROWS = [(1, 32768), (2, 16384), (4, 8192), (8, 4096), (16, 2048), (32, 1024), (64, 512), (256, 128)]
HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128


def time_ms(work, rounds=7):
    work()
    torch.cuda.synchronize()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(3):
            work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 3)
    return statistics.median(times)


def main():
    print(f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, causal BF16")
    a, b = (torch.rand(8192, 8192, device="cuda").mul_(2).sub_(1).bfloat16() for _ in range(2))
    for batch, length in ROWS:
        q = torch.rand(batch, length, HEADS, HEAD_DIM, device="cuda").mul_(4).sub_(2).bfloat16()
        k, v = (torch.rand(batch, length, KV_HEADS, HEAD_DIM, device="cuda").mul_(4).sub_(2).bfloat16()
                for _ in range(2))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        flop = 4 * HEAD_DIM * HEADS * batch * length * (length + 1) / 2
        figures = []
        for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
            try:
                with sdpa_kernel(backend):
                    ms = time_ms(lambda: F.scaled_dot_product_attention(
                        q, k, v, is_causal=True, scale=1 / math.sqrt(HEAD_DIM), enable_gqa=True))
                figures.append(f"{name} {ms * 1e3:9.1f} us {flop / ms * 1e-9:5.0f} TFLOP/s")
            except RuntimeError as error:
                figures.append(f"{name} refused ({str(error).splitlines()[0][:60]})")
        limit = 2 * 8192**3 / time_ms(lambda: a @ b.T, 3) * 1e-9
        print(f"{batch:4d} x {length:5d}  {'   '.join(figures)}   matrix product {limit:.0f}")


if __name__ == "__main__":
    main()
