// The run as the browser knows it: records, and the state after any number of them.
//
// Python has folded the run once and noted for each record which table cells change and to what
// (player.py). Nothing here repeats a rule of the model: patches are applied, or undone. Words:
//   record    has a number; the *current* one is the last that is applied
//   applied   how many records the state includes
//   cell      one key of one table; cells and values have numbers
//   horizon   the first record that an unanswered prediction still hides

class Story {
  constructor(data) {
    const count = data.kind.length;
    Object.assign(this, { data, count, first: data.first, kinds: data.kinds, actors: data.actors });
    this.time = running(data.time);
    this.cause = data.cause; // how many records back; 0 for none
    this.fieldStart = new Int32Array(count + 1);
    for (let i = 0; i < count; i++) {
      this.fieldStart[i + 1] = this.fieldStart[i] + this.kinds[data.kind[i]].fields.length;
    }
    this.patchStart = running([0, ...data.patches]);
    this.patchCell = Int32Array.from(data.patchCell);
    this.patchNew = Int32Array.from(data.patchValue);
    this.patchOld = new Int32Array(this.patchNew.length);
    this.state = new Int32Array(data.cellKey.length);
    this.begin();
    this.index = data.tables.map(() => new Map());
    data.cellTable.forEach((table, cell) => {
      this.index[table].set(String(data.cellKey[cell]), cell); // [0, 7] reads "0,7"
    });
    this.tableNumber = new Map(data.tables.map((table, number) => [`${table.part}.${table.name}`, number]));
    this.groups = []; // the live cells of each kernel in tables keyed by (kernel, more)
    this.groupOf = new Int32Array(this.state.length).fill(-1);
    this.groupNumber = new Map();
    data.cellTable.forEach((table, cell) => {
      const key = data.cellKey[cell];
      if (!data.tables[table].perKernel || !Array.isArray(key)) return;
      const name = `${table} ${key[0]}`;
      if (!this.groupNumber.has(name)) this.groupNumber.set(name, this.groups.push(new Set()) - 1);
      this.groupOf[cell] = this.groupNumber.get(name);
      if (this.state[cell] >= 0) this.groups[this.groupOf[cell]].add(cell);
    });
    for (let i = 0; i < this.patchNew.length; i++) { // once forward: learn what each patch replaces
      const cell = this.patchCell[i];
      this.patchOld[i] = this.state[cell];
      this.state[cell] = this.patchNew[i];
    }
    this.begin();
    this.lane = Int32Array.from(data.who, (who) => data.lane[who]);
    this.horizon = count;
  }

  begin() {
    this.state.fill(-1);
    this.data.initial.forEach((value, cell) => { this.state[cell] = value; });
    this.applied = 0;
  }

  move(target) { // every patch between here and there; 100,000 records take about 2 ms
    const { patchStart, applied } = this;
    if (target >= applied) {
      for (let i = patchStart[applied]; i < patchStart[target]; i++) this.put(this.patchCell[i], this.patchNew[i]);
    } else {
      for (let i = patchStart[applied] - 1; i >= patchStart[target]; i--) this.put(this.patchCell[i], this.patchOld[i]);
    }
    this.applied = target;
  }

  put(cell, value) {
    this.state[cell] = value;
    const group = this.groupOf[cell];
    if (group < 0) return;
    if (value < 0) this.groups[group].delete(cell); else this.groups[group].add(cell);
  }

  cell(table, key) {
    const number = this.tableNumber.get(table);
    return number === undefined ? undefined : this.index[number].get(String(key));
  }

  valueNumber(table, key) {
    const cell = this.cell(table, key);
    return cell === undefined ? -1 : this.state[cell];
  }

  value(table, key) { return this.plain(this.valueNumber(table, key)); }

  plain(number) { // the value as JSON; undefined where the table has no such key
    if (number < 0) return undefined;
    const value = this.data.values[number];
    return value !== null && typeof value === "object" ? value[1] : value;
  }

  text(number) {
    if (number < 0) return "–";
    const value = this.data.values[number];
    if (value !== null && typeof value === "object") return value[0];
    return typeof value === "boolean" ? (value ? "True" : "False") : value === null ? "None" : String(value);
  }

  kindOf(i) { return this.kinds[this.data.kind[i]]; }

  fields(i) {
    const kind = this.kindOf(i), start = this.fieldStart[i], texts = {};
    kind.fields.forEach((field, place) => {
      const raw = this.data.field[start + place];
      texts[field] = kind.coded[place] ? this.text(raw) : String(raw);
    });
    return texts;
  }

  number(i, field) { // an integer field of a record, or undefined
    const kind = this.kindOf(i), place = kind.fields.indexOf(field);
    return place < 0 || kind.coded[place] ? undefined : this.data.field[this.fieldStart[i] + place];
  }

  sentence(i) {
    const kind = this.kindOf(i);
    if (kind.says === null) return this.data.values[this.data.sentence[i]];
    const texts = this.fields(i);
    return kind.says.replace(/\{\{|\}\}|\{(\w+)(?::([^{}]*))?\}/g, (whole, name, how) => {
      if (!name) return whole[0];
      if (how === "#x") return `0x${Number(texts[name]).toString(16)}`;
      return how === "," ? texts[name].replace(/\B(?=(\d{3})+$)/g, ",") : texts[name];
    });
  }

  snapshot() { // every table as [key, value] pairs, for tests and for whoever reads along
    const { tables, cellTable, cellKey } = this.data, all = {};
    for (const table of tables) all[`${table.part}.${table.name}`] = [];
    cellTable.forEach((table, cell) => {
      if (this.state[cell] >= 0) {
        const { part, name } = tables[table];
        all[`${part}.${name}`].push([cellKey[cell], this.plain(this.state[cell])]);
      }
    });
    return all;
  }
}

function running(deltas) {
  const sums = new Float64Array(deltas.length);
  let sum = 0;
  for (let i = 0; i < deltas.length; i++) sums[i] = sum += deltas[i];
  return sums;
}
