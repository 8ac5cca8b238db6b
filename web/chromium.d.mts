/** How Playwright starts Chromium. */
export declare const launchOptions: { executablePath: string; args: string[] };
