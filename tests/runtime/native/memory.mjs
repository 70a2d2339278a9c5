// What dump.c prints, by the module for browsers: node memory.mjs MODULE FOLDER KERNELS BEAMS < sentences
import { readFileSync } from "node:fs";
import { argv } from "node:process";

const clock = { clock_time_get: (id, precision, at) => (view().setBigUint64(at, process.hrtime.bigint(), true), 0) };
const { instance } = await WebAssembly.instantiate(readFileSync(argv[2]), { wasi_snapshot_preview1: clock });
const core = instance.exports;
const view = () => new DataView(core.memory.buffer); // anew each time: it is gone when the memory grows
core._initialize();

function put(bytes) {
  const at = core.malloc(bytes.length || 1);
  new Uint8Array(core.memory.buffer).set(bytes, at);
  return at;
}
const words = (values) => put(new Uint8Array(new Uint32Array(values).buffer));
const word = (at) => view().getUint32(at, true);
const text = (at) => {
  const bytes = new Uint8Array(core.memory.buffer, at);
  return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
};
const error = put(new Uint8Array(256));
function check(status) {
  if (status) throw new Error(text(error + 4));
}

if (argv[4] === "?") {
  for (let i = 0; core.mn_kernels(i); i++) console.log(text(core.mn_kernels(i)));
  process.exit();
}
const lines = readFileSync(0, "utf8").split("\n").slice(0, -1);
const sentences = lines.map((line) => line.trim().split(/ +/).map(Number));
const place = words([0, 0]); // model, context
const files = ["native.bin", "weights.bin"].flatMap((name) => {
  const bytes = readFileSync(`${argv[3]}/${name}`);
  return [put(bytes), bytes.length];
});
const kernels = argv[4] === "-" ? 0 : put(new TextEncoder().encode(argv[4] + "\0"));
check(core.mn_open_memory(...files, words([8, kernels]), place, error));
check(core.mn_context_new(word(place), 0n, place + 4, error));
const beams = Number(argv[5]);
const request = words([88, sentences.length, words(sentences.flat()), words(sentences.map((s) => s.length)),
  words(sentences.map(() => 24)), 0, beams, beams, ...Array(14).fill(0)]);
view().setFloat32(request + 32, 0.8, true); // length_penalty
view().setUint32(request + 60, 1, true); // alignment
const result = words([32, 0, 0, 0, 0, 0, 0, 0]);
check(core.mn_translate(word(place + 4), request, result, error));
const hex = (value) => value.toString(16).padStart(8, "0");
for (let h = 0; h < word(result + 4); h++) {
  const [ids, lengths, generated, scores, tokens, alignments] = [8, 12, 16, 20, 24, 28].map((i) => word(word(result + i) + 4 * h));
  let line = hex(scores);
  for (let i = 0; i < generated; i++) {
    const [id, source] = i < lengths ? [word(ids + 4 * i), word(alignments + 4 * i)] : [-1, -1];
    line += ` ${id}@${source}:${hex(word(tokens + 4 * i))}`;
  }
  console.log(line);
}
core.mn_context_free(word(place + 4));
core.mn_close(word(place));
