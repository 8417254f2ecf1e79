// Usage: node validate_gltf.mjs FILE.glb ...; prints one Khronos report per file as a JSON array.
import { readFileSync } from "node:fs";
import validator from "gltf-validator";

const reports = [];
for (const path of process.argv.slice(2)) {
  reports.push(await validator.validateBytes(new Uint8Array(readFileSync(path)), { uri: path }));
}
console.log(JSON.stringify(reports));
