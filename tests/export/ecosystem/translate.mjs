// Lines of a JSON file, translated greedily by transformers.js from a folder: node translate.mjs MODULE FOLDER DTYPE FILE
const [module, folder, dtype, file] = process.argv.slice(2);
const { readFileSync } = await import("node:fs");
const { dirname, basename } = await import("node:path");
const { AutoTokenizer, AutoModelForSeq2SeqLM, env } = await import(module);
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const name = basename(folder);
const tokenizer = await AutoTokenizer.from_pretrained(name);
const model = await AutoModelForSeq2SeqLM.from_pretrained(name, { dtype, device: "cpu" });
const found = [];
for (const { text, length } of JSON.parse(readFileSync(file, "utf8"))) {
  const inputs = await tokenizer(text);
  const output = await model.generate({ ...inputs, num_beams: 1, do_sample: false, max_length: length });
  found.push({ source: inputs.input_ids.tolist()[0].map(Number), ids: output.tolist()[0].map(Number) });
}
console.log(JSON.stringify(found));
