// The files of what is dropped on the page, with those in folders.

async function filesIn(entry, path) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, name: path + entry.name }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A reader returns about 100 entries at a time, and none at its end.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return found;
    for (const child of entries) found.push(...(await filesIn(child, `${path}${entry.name}/`)));
  }
}

export async function filesOfDrop(transfer) {
  // The entries must be taken at once: the list is emptied when the event ends.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return filesOfInput(transfer.files);
  const found = [];
  for (const entry of entries) found.push(...(await filesIn(entry, "")));
  return found;
}

export function filesOfInput(files) {
  return [...files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

// Those that can be read, sorted by name; hidden files are left out.
export function onlyRecordings(files, suffixes) {
  const isRecording = ({ name }) => {
    const base = name.split("/").pop();
    return !base.startsWith(".") && suffixes.some((suffix) => base.toLowerCase().endsWith(suffix));
  };
  return files.filter(isRecording).sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
}
