// What V8 makes code for, throws away and makes again: types that change, regular expressions, functions from
// text, WebAssembly, typed arrays, big integers, generators.  Prints numbers that any engine gives;
// `loop.js N' does an Nth of it.
'use strict';

function collatz(limit) {
    let best = 0;
    for (let start = 1; start < limit; start++) {
        let n = start, steps = 0;
        while (n !== 1) {
            n = n % 2 === 0 ? n / 2 : 3 * n + 1;
            steps++;
        }
        best = Math.max(best, steps);
    }
    return best;
}

class Node {
    constructor(key) {
        this.key = key;
        this.left = this.right = null;
    }
    insert(key) {
        const side = key < this.key ? 'left' : 'right';
        if (this[side])
            this[side].insert(key);
        else
            this[side] = new Node(key);
    }
    *walk() {
        if (this.left)
            yield* this.left.walk();
        yield this.key;
        if (this.right)
            yield* this.right.walk();
    }
}

function tree(count) {
    const root = new Node(500);
    let key = 1, sum = 0, place = 0;
    for (let i = 0; i < count; i++) {
        key = Math.imul(key, 1103515245) + 12345 & 0x7fffffff;
        root.insert(key >> 8);
    }
    for (const k of root.walk())
        sum = (sum * 31 + k * ++place) % 1000003;
    return sum;
}

// Numbers, then strings, then fractions, then objects through one function: its code is made four times.
function add(a, b) {
    return a + b;
}
function types(count) {
    let out = '';
    for (const start of [0, '', 0.5, 1n, { valueOf: () => 7 }]) {
        let x = start;
        for (let i = 0; i < count; i++) {
            x = add(x, typeof x === 'bigint' ? 3n : 3);
            if (typeof x === 'string' && x.length > 50)
                x = x.slice(40);
        }
        out += x + ' ';
    }
    return out.trim();
}

function expressions(count) {
    let text = '';
    for (let i = 0; i < count; i++)
        text += `w${i * 7919 % 1009} x${i % 37}@host${i % 11}.example `;
    const found = new Map();
    for (const [word] of text.matchAll(/w\d+|(?<=x)\d+(?=@host[3-7]\.)/g))
        found.set(word, (found.get(word) || 0) + 1);
    return [...found].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 4).join(';') +
        text.replace(/(\w+)@(\w+)\.example/g, '$2 $1').length;
}

function functions(count) {
    let sum = 0;
    for (let i = 0; i < count; i++) {
        const f = new Function('n', `let s = ${i};
            for (let k = 0; k < n; k++)
                s = (s * ${i % 13 + 3} + k) % 65521;
            return s;`);
        sum = (sum + f(300)) % 1000003;
    }
    return sum;
}

// (func (export "f") (param i32) (result i32)): the loop of functions() with 5, in 32 bits.
function wasm(count) {
    const bytes = [0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0,
        0, 10, 45, 1, 43, 1, 2, 127, 2, 64, 3, 64, 32, 2, 32, 0, 78, 13, 1, 32, 1, 65, 5, 108, 32, 2, 106,
        65, 241, 255, 3, 112, 33, 1, 32, 2, 65, 1, 106, 33, 2, 12, 0, 11, 11, 32, 1, 11];
    const module = new WebAssembly.Module(new Uint8Array(bytes));
    return new WebAssembly.Instance(module).exports.f(count);
}

function arrays(size) {
    const a = new Float64Array(size), b = new Int32Array(size), c = new Uint8Array(size);
    let sum = 0;
    for (let i = 0; i < size; i++) {
        a[i] = Math.sqrt(i) * 1.5;
        b[i] = Math.imul(i, 2654435761);
        c[i] = b[i] >>> 24;
    }
    b.sort();
    for (let i = 0; i < size; i++)
        sum += a[i] * c[i] + (b[i] & 255);
    return sum.toFixed(6);
}

function big(count) {
    let a = 0n, b = 1n;
    for (let i = 0; i < count; i++)
        [a, b] = [b, a + b];
    return `${a % 1000000007n}`;
}

function thrown(count) {
    let caught = 0;
    for (let i = 0; i < count; i++) {
        try {
            if (i % 3 === 0)
                null.x;
            if (i % 5 === 0)
                throw new RangeError('five');
        } catch (e) {
            caught += e instanceof TypeError ? 1 : 1000;
        }
    }
    return caught;
}

const crypto = require('crypto');
const part = n => Math.ceil(n / (process.argv[2] || 1));
const objects = Array.from({ length: part(20000) }, (_, i) => ({ i, third: i / 3, name: `n${i}` }));
const data = JSON.stringify(objects);
const digest = crypto.createHash('sha256').update(data).digest('hex');
console.log(collatz(part(60000)), tree(part(20000)), types(part(30000)));
console.log(expressions(part(8000)), functions(part(400)));
console.log(arrays(part(100000)), big(part(3000)), thrown(part(4000)));
console.log(JSON.parse(data).reduce((sum, o) => sum + o.third, 0), digest);
if (globalThis.WebAssembly)
    console.log(wasm(part(300000)));
