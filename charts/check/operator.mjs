// Holds objects of the Prometheus operator against its own types.
//
//     node operator.mjs FOLDER-WITH-NODE_MODULES FILE...
//
// Prints what is wrong and ends with 1.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, ...files] = process.argv.slice(2);
// The packages lie elsewhere than this file, so they cannot be named as usual.
const { loadAll } = createRequire(`${folder}/`)("js-yaml");
const operator = `${folder}/node_modules/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/index.js`;
const types = await import(pathToFileURL(operator));

let [seen, wrong] = [0, 0];
for (const file of files) {
  for (const thing of loadAll(readFileSync(file, "utf8"))) {
    if (thing?.apiVersion !== "monitoring.coreos.com/v1") continue;
    seen += 1;
    try {
      new types[thing.kind](thing).validate();
    } catch (error) {
      console.log(`${file}: ${thing.kind} ${thing.metadata.name}: ${error.message}`);
      wrong += 1;
    }
  }
}
if (seen === 0) console.log("no object of the operator was found");
process.exit(wrong > 0 || seen === 0 ? 1 : 0);
