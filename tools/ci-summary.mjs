/**
 * Sums up what the runners of a test run counted: `node tools/ci-summary.mjs FOLDER STATUS`, where FOLDER has their
 * JSON reports and STATUS is the exit status of the run. Names every failed and every skipped test; its last line is
 * `N passed, N failed, N skipped`. A run that failed without a failed test counts as one failure, so that no summary
 * is better than the run.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

const [folder, status = '1'] = process.argv.slice(2);

function readReports() {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith('.json'))
      .map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')));
  } catch (error) {
    console.log(`No report of the tests: ${error.message}`);
    return [];
  }
}

/** Names of the tests with a status, each with its file. */
function named(file, statuses) {
  return file.assertionResults
    .filter((test) => statuses.includes(test.status))
    .map((test) => `${relative('.', file.name)} › ${test.fullName}`);
}

const reports = readReports();
const files = reports.flatMap((report) => report.testResults);
const sum = (member) => reports.reduce((total, report) => total + (report[member] ?? 0), 0);

const failedTests = files.flatMap((file) => named(file, ['failed']));
/** A file that could not be loaded, or left something behind: no test of it failed, but it did. */
const failedFiles = files
  .filter((file) => file.status === 'failed' && named(file, ['failed']).length === 0)
  .map((file) => `${relative('.', file.name)}: ${file.message}`);
const skipped = files.flatMap((file) => named(file, ['skipped', 'pending', 'todo', 'disabled']));

const passed = sum('numPassedTests');
let failed = sum('numFailedTests') + failedFiles.length;
if (failed === 0 && status !== '0') {
  failed = 1;
  console.log(`The run failed (status ${status}) without a failed test; its output above says why.`);
}

const list = (title, lines) => {
  if (lines.length > 0) console.log(`${title}:\n${lines.map((line) => `  ${line}`).join('\n')}`);
};
list('Failed', [...failedTests, ...failedFiles]);
list('Skipped', skipped);
console.log(`${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}`);
