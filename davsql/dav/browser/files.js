// Files that somebody gives us, each { file, way } with the way below the folder: "photos/a.jpg".

// What was dropped: files, and folders with all that is in them; file is null for a folder that is to be made.
export async function* dropped(transfer) {
  // Both are to be had at once only, before anything waits.
  const items = [...transfer.items].map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
  for (const [entry, file] of items) {
    if (entry) yield* walk(entry, "");
    else if (file) yield { file, way: file.name };
  }
}

async function* walk(entry, way) {
  if (entry.isFile) {
    yield { file: await new Promise((resolve, reject) => entry.file(resolve, reject)), way: way + entry.name };
    return;
  }
  yield { file: null, way: `${way}${entry.name}/` };
  const reader = entry.createReader();
  for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) {
    for (const each of some) yield* walk(each, `${way}${entry.name}/`);
  }
}

export const picked = (input) => [...input.files].map((file) => ({ file, way: file.webkitRelativePath || file.name }));
