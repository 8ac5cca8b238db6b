/** Usage by day, and by level or model: as a chart, a table and a file. */

import { useMemo, useState } from "react";
import type { Usage as UsageAnswer, UsageParams } from "./api.js";
import { Chart, type Series } from "./Chart.js";
import { useAsked, usePage } from "./context.js";
import { Facts, Table, Trouble } from "./parts.js";

const MEASURES = ["messages", "ap", "tokens", "overage"] as const;
type Measure = (typeof MEASURES)[number];
const GROUPS = ["none", "level", "model"] as const;
type Group = (typeof GROUPS)[number];
/** Number of chart colors. Groups beyond it are added up. */
const SERIES_MAX = 6;
const LOOK_EVERY_MS = 5000;

export function Usage() {
    const { api, text, number } = usePage();
    const [from, setFrom] = useState("");
    const [to, setTo] = useState("");
    const [group, setGroup] = useState<Group>("model");
    const [measure, setMeasure] = useState<Measure>("messages");
    const [failed, setFailed] = useState<Error>();
    const params: UsageParams = {
        ...(from && { from }),
        ...(to && { to }),
        groupBy: group === "none" ? "day" : `day,${group}`,
        limit: 10_000,
    };
    const { data, error } = useAsked(`usage ${JSON.stringify(params)}`, () => api.usage(params), LOOK_EVERY_MS);
    const download = async () => {
        setFailed(undefined);
        try {
            const link = document.createElement("a");
            link.href = URL.createObjectURL(await api.usageFile(params));
            link.download = "usage.csv";
            link.click();
            URL.revokeObjectURL(link.href);
        } catch (refused) {
            setFailed(refused as Error);
        }
    };
    const nameOf = (row: UsageAnswer["rows"][number]) => (group === "level" ? row.membershipLevel : row.model) ?? "";
    const drawn = useMemo(() => data && draw(data, measure, nameOf, text), [data, measure, text]);
    return (
        <>
            <div className="choices">
                <label>
                    {text.from} <input type="date" value={from} onChange={(event) => setFrom(event.target.value)} />
                </label>
                <label>
                    {text.to} <input type="date" value={to} onChange={(event) => setTo(event.target.value)} />
                </label>
                <label>
                    {text.by}{" "}
                    <select value={group} onChange={(event) => setGroup(event.target.value as Group)}>
                        {GROUPS.map((one) => (
                            <option key={one} value={one}>
                                {text.groups[one]}
                            </option>
                        ))}
                    </select>
                </label>
                <label>
                    {text.measure}{" "}
                    <select value={measure} onChange={(event) => setMeasure(event.target.value as Measure)}>
                        {MEASURES.map((one) => (
                            <option key={one} value={one}>
                                {text.measures[one]}
                            </option>
                        ))}
                    </select>
                </label>
                <button type="button" className="qg-button" onClick={() => void download()}>
                    {text.download}
                </button>
            </div>
            <Trouble error={error ?? failed} />
            {data && drawn && (
                <>
                    <section className="panel">
                        <Facts
                            facts={MEASURES.map((one) => [text.measures[one], number(data.total[one])] as const).map(
                                ([name, value]) => [name, value],
                            )}
                        />
                        <Chart
                            label={`${text.measures[measure]}, ${data.from} – ${data.to}`}
                            days={drawn.days}
                            series={drawn.series}
                        />
                        <p className="muted">
                            {text.daysOf} {data.timeZone}
                        </p>
                    </section>
                    <Table
                        label={text.part.usage}
                        head={[
                            text.day,
                            ...(group === "none" ? [] : [text.groups[group]]),
                            ...MEASURES.map((one) => text.measures[one]),
                        ]}
                    >
                        {data.rows.toReversed().map((row) => (
                            <tr key={`${row.day} ${nameOf(row)}`}>
                                <th scope="row">{row.day}</th>
                                {group !== "none" && <td>{nameOf(row) || text.unnamed}</td>}
                                {MEASURES.map((one) => (
                                    <td key={one}>{number(row[one])}</td>
                                ))}
                            </tr>
                        ))}
                    </Table>
                    {data.rows.length === 0 && <p>{text.noUsage}</p>}
                </>
            )}
        </>
    );
}

/** Returns every day of the range, and the largest groups; the others are added up. */
function draw(
    data: UsageAnswer,
    measure: Measure,
    nameOf: (row: UsageAnswer["rows"][number]) => string,
    text: { unnamed: string; others: string },
): { days: string[]; series: Series[] } {
    const days: string[] = [];
    for (let day = Date.parse(data.from); day <= Date.parse(data.to); day += 86_400_000) {
        days.push(new Date(day).toISOString().slice(0, 10));
    }
    const place = new Map(days.map((day, at) => [day, at]));
    const values = new Map<string, number[]>();
    for (const row of data.rows) {
        const of = values.get(nameOf(row)) ?? days.map(() => 0);
        const at = place.get(row.day ?? "");
        if (at !== undefined) of[at] = (of[at] ?? 0) + row[measure];
        values.set(nameOf(row), of);
    }
    const sum = (of: number[]) => of.reduce((total, value) => total + value, 0);
    const series = [...values]
        .map(([name, of]) => ({ name: name || text.unnamed, values: of }))
        .sort((one, other) => sum(other.values) - sum(one.values));
    const [shown, rest] = [series.slice(0, SERIES_MAX - 1), series.slice(SERIES_MAX - 1)];
    if (rest.length > 0) {
        shown.push({
            name: rest.length === 1 && rest[0] ? rest[0].name : text.others,
            values: days.map((_, day) => sum(rest.map((of) => of.values[day] ?? 0))),
        });
    }
    return { days, series: shown };
}
