/** Chat demo: sign in as a sample user, watch the quota decrease, reach the limit, upgrade, continue. */

import { createRoot } from "react-dom/client";
import { App } from "./App.js";
import "@quota-gate/react/styles.css";
import "../page.css";

createRoot(document.getElementById("root") as HTMLElement).render(<App />);
