"""What is to be reached: how many times faster than the peer, in one run on one machine."""

TARGETS = {
    "int-mix": 1.8, "sha256-c": 1.8, "sort": 1.8, "qsort": 1.8,
    "fib": 4, "vm-switch": 4, "vm-goto": 4,
    "nbody": 5, "mandel": 5, "daxpy": 10, "matmul": 10,
    "memset": 2.5, "memcpy": 2.5, "strlen": 10,
    "chase-64M": 2, "random-64M": 2,
    "getppid": 15, "fault": 6, "pipe": 6, "fork": 3,
    "openssl-sha256": 10, "openssl-aes-gcm": 10, "python": 3, "sqlite": 3,
    "boot -smp 1: shell, CPU s": 2, "boot -smp 8: shell, wall s": 3, "boot -smp 1: peak MiB": 1,
    # the geometric means
    "row": 4, "program": 3,
}
# Any row or program that is not named: no slower than the peer.

# Not work but waiting, which no engine makes several times shorter.
NOT_IN_MEAN = ("late-",)
