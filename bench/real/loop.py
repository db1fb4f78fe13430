"""What scripts do: numbers, strings, dictionaries, objects, calls."""
import json
import re


class Node:
    def __init__(self, key):
        self.key, self.left, self.right = key, None, None

    def insert(self, key):
        side = "left" if key < self.key else "right"
        child = getattr(self, side)
        if child:
            child.insert(key)
        else:
            setattr(self, side, Node(key))

    def depth(self):
        return 1 + max(n.depth() if n else 0 for n in (self.left, self.right))


def collatz(limit):
    best = 0
    for start in range(1, limit):
        n, steps = start, 0
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            steps += 1
        best = max(best, steps)
    return best


def words(count):
    text = " ".join(f"w{i * 7919 % 1009}" for i in range(count))
    seen = {}
    for word in re.findall(r"w\d+", text):
        seen[word] = seen.get(word, 0) + 1
    return sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:5]


def tree(count):
    root, key = Node(500), 1
    for _ in range(count):
        key = key * 1103515245 + 12345 & 0x7fffffff
        root.insert(key >> 8)
    return root.depth()


print(collatz(4000), words(20000), tree(3000), len(json.dumps({str(i): [i, i / 3] for i in range(5000)})))
