/** The Chromium that tests run in: `CHROMIUM`, or where systems put it. */

import { existsSync } from "node:fs";

const PLACES = [
    "/usr/bin/chromium",
    "/usr/bin/google-chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/** How Playwright starts it. */
export const launchOptions = {
    executablePath: process.env.CHROMIUM ?? PLACES.find((place) => existsSync(place)) ?? "chromium",
    // Tests also run as root, where its sandbox cannot.
    args: ["--no-sandbox"],
};
