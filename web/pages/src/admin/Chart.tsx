/** Stacked bars, one per day. A table next to the chart has the same numbers, for accessibility. */

import { useLayoutEffect, useRef, useState } from "react";
import { usePage } from "./context.js";

/** The segments of one color, in all bars. */
export interface Series {
    name: string;
    /** One value per day. */
    values: number[];
}

const HEIGHT = 220;
/** Has room for the shortened numbers of the axis, and for half of the last date. */
const MARGIN = { top: 12, right: 16, bottom: 22, left: 52 };
const LINES = 4;

export function Chart({ label, days, series }: { label: string; days: string[]; series: Series[] }) {
    const { number, short } = usePage();
    const box = useRef<HTMLDivElement>(null);
    const [width, setWidth] = useState(640);
    useLayoutEffect(() => {
        const observer = new ResizeObserver(([entry]) => entry && setWidth(entry.contentRect.width));
        if (box.current) observer.observe(box.current);
        return () => observer.disconnect();
    }, []);

    const sums = days.map((_, day) => series.reduce((sum, { values }) => sum + (values[day] ?? 0), 0));
    const top = ceiling(Math.max(1, ...sums));
    const plot = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
    const step = plot.width / days.length;
    const y = (value: number) => MARGIN.top + plot.height * (1 - value / top);
    // Label only as many dates as fit.
    const every = Math.ceil(days.length / Math.max(1, Math.floor(plot.width / 56)));
    return (
        <figure>
            <div ref={box}>
                <svg role="img" aria-label={label} width={width} height={HEIGHT} viewBox={`0 0 ${width} ${HEIGHT}`}>
                    {Array.from({ length: LINES + 1 }, (_, line) => (top * line) / LINES).map((value) => (
                        <g key={value}>
                            <line className="grid" x1={MARGIN.left} x2={width} y1={y(value)} y2={y(value)} />
                            <text x={MARGIN.left - 6} y={y(value) + 4} textAnchor="end">
                                {short(value)}
                            </text>
                        </g>
                    ))}
                    {days.map((day, at) => {
                        let below = 0;
                        return (
                            <g key={day}>
                                {series.map(({ name, values }, color) => {
                                    const value = values[at] ?? 0;
                                    below += value;
                                    return (
                                        <rect
                                            key={name}
                                            className={`color-${color}`}
                                            x={MARGIN.left + at * step + step * 0.1}
                                            width={step * 0.8}
                                            y={y(below)}
                                            height={(plot.height * value) / top}
                                        >
                                            <title>{`${day} ${name}: ${number(value)}`}</title>
                                        </rect>
                                    );
                                })}
                                {at % every === 0 && (
                                    <text x={MARGIN.left + (at + 0.5) * step} y={HEIGHT - 6} textAnchor="middle">
                                        {day.slice(5)}
                                    </text>
                                )}
                            </g>
                        );
                    })}
                </svg>
            </div>
            {series.length > 1 && (
                <figcaption className="legend">
                    {series.map(({ name }, color) => (
                        <span key={name}>
                            <span className={`swatch color-${color}`} aria-hidden="true" /> {name}
                        </span>
                    ))}
                </figcaption>
            )}
        </figure>
    );
}

/** Rounds up to an easily read number that four grid lines divide evenly. */
function ceiling(value: number): number {
    const power = 10 ** Math.floor(Math.log10(value));
    const steps = [1, 2, 4, 8, 10].map((factor) => factor * power).filter((one) => one >= 4);
    return steps.find((one) => one >= value) ?? Math.max(4, 10 * power);
}
