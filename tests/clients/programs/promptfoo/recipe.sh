set -euo pipefail
promptfoo eval --no-cache --output result.json

# checks
node -e '
const assert = require("node:assert/strict");
const { results } = JSON.parse(require("node:fs").readFileSync("result.json"));
assert.deepEqual([results.stats.successes, results.stats.failures, results.stats.errors], [4, 0, 0]);
'
