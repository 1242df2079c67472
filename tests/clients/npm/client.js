// webdav of npm against a running server, in a new folder that is removed again:
//
//   npm ci && node client.js http://127.0.0.1:8080/
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { buffer } from "node:stream/consumers";
import { createClient } from "webdav";

const client = createClient(process.argv[2] ?? "http://127.0.0.1:8080/");
const top = `/npm ${Date.now()}`;
const names = ["plain.txt", "é #%?&+;.txt", "日本語 🎉.txt", " 100% ", "a\\b[c]{d}.txt", "%41.txt", "it's \"quoted\" <x>.txt"];
const big = randomBytes(5_000_000);
const digest = (data) => createHash("sha256").update(data).digest("hex");
const isStatus = (status) => (error) => error.status === status;

await client.createDirectory(`${top}/a é/b/c`, { recursive: true });
for (const name of names) assert(await client.putFileContents(`${top}/a é/${name}`, name));
const listed = await client.getDirectoryContents(`${top}/a é`);
assert.deepEqual(listed.map((each) => each.basename).sort(), [...names, "b"].sort());
for (const name of names) assert.equal(await client.getFileContents(`${top}/a é/${name}`, { format: "text" }), name);
assert.equal((await client.getDirectoryContents(top, { deep: true })).length, names.length + 3);
assert.equal((await client.getDirectoryContents(top, { deep: true, glob: "/**/*.txt" })).length, names.length - 1);

assert(await client.putFileContents(`${top}/big.bin`, big));
assert.equal(await client.putFileContents(`${top}/big.bin`, "small", { overwrite: false }), false);
assert.equal(digest(await client.getFileContents(`${top}/big.bin`)), digest(big));
const part = await buffer(client.createReadStream(`${top}/big.bin`, { range: { start: 1000, end: 1_999_999 } }));
assert.equal(digest(part), digest(big.subarray(1000, 2_000_000)));
await new Promise((resolve, reject) => {
    const out = client.createWriteStream(`${top}/stream.bin`, {}, resolve);
    pipeline(Readable.from([big.subarray(0, 2_500_000), big.subarray(2_500_000)]), out).catch(reject);
});
assert.equal(digest(await client.getFileContents(`${top}/stream.bin`)), digest(big));
await client.partialUpdateFileContents(`${top}/stream.bin`, 10, 13, Buffer.from("part"));
const changed = Buffer.concat([big.subarray(0, 10), Buffer.from("part"), big.subarray(14)]);
assert.equal(digest(await client.getFileContents(`${top}/stream.bin`)), digest(changed));

const told = await client.stat(`${top}/big.bin`);
assert.deepEqual([told.type, told.size, typeof told.etag], ["file", big.length, "string"]);
await client.copyFile(`${top}/big.bin`, `${top}/a é/copy #.bin`);
assert.equal((await client.stat(`${top}/a é/copy #.bin`)).etag, told.etag);
await client.moveFile(`${top}/a é`, `${top}/moved %`);
assert.equal(await client.exists(`${top}/a é`), false);
assert.equal(await client.exists(`${top}/moved %/copy #.bin`), true);
// Left to itself it asks for all properties; the quota is told to those who name it.
const quota = `<propfind xmlns="DAV:"><prop><quota-used-bytes/><quota-available-bytes/></prop></propfind>`;
assert((await client.getQuota({ data: quota })).used > 0);
assert((await client.getDAVCompliance("/")).compliance.includes("2"));

await assert.rejects(client.createDirectory(`${top}/no/no`), isStatus(409));
await assert.rejects(client.createDirectory(top), isStatus(405));
await assert.rejects(client.stat(`${top}/no`), isStatus(404));
await assert.rejects(client.copyFile(`${top}/big.bin`, `${top}/stream.bin`, { overwrite: false }), isStatus(412));
const lock = await client.lock(`${top}/big.bin`);
await assert.rejects(client.putFileContents(`${top}/big.bin`, "x"), isStatus(423));
await client.putFileContents(`${top}/big.bin`, "x", { headers: { If: `(<${lock.token.replace(/[<>]/g, "")}>)` } });
await client.unlock(`${top}/big.bin`, lock.token);
await client.putFileContents(`${top}/big.bin`, "y");

await client.deleteFile(top);
assert.equal(await client.exists(top), false);
console.log("all as expected");
